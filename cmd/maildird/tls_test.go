package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// makeCertificate writes cert.pem and key.pem for 127.0.0.1 into dir.
func makeCertificate(t *testing.T, dir string, serial int64) {
	t.Helper()
	cert, key := newPair(t, serial, time.Now().Add(time.Hour))
	write(t, filepath.Join(dir, "key.pem"), key)
	write(t, filepath.Join(dir, "cert.pem"), cert)
}

// newPair makes a certificate that signs itself, and its key.
func newPair(t *testing.T, serial int64, notAfter time.Time) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		NotBefore:    notAfter.Add(-24 * time.Hour),
		NotAfter:     notAfter,
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, der []byte) string {
		var b bytes.Buffer
		pem.Encode(&b, &pem.Block{Type: kind, Bytes: der})
		return b.String()
	}
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", pkcs8)
}
