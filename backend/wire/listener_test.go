package wire

import (
	"net"
	"testing"
)

func TestNetwork(t *testing.T) {
	for _, tt := range []struct {
		addr net.Addr
		want string
	}{
		{&net.TCPAddr{IP: net.ParseIP("192.0.2.1"), Port: 1}, "192.0.2.1/32"},
		{&net.TCPAddr{IP: net.ParseIP("::ffff:192.0.2.1"), Port: 2}, "192.0.2.1/32"},
		{&net.TCPAddr{IP: net.ParseIP("2001:db8:1:2:3:4:5:6")}, "2001:db8:1:2::/64"},
		{&net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0"}, "fe80::/64"},
		{&net.TCPAddr{}, ""},
		{&net.UnixAddr{Name: "@"}, ""},
	} {
		got, ok := network(tt.addr)
		if ok != (tt.want != "") || ok && got.String() != tt.want {
			t.Errorf("network(%v) = %v, %v, want %q", tt.addr, got, ok, tt.want)
		}
	}
}
