package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/imapmaildir/imapmaildir/backend"
)

func readDoc(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Every key has its row in docs/configuration.md, and the full sample there has them all and is taken.
func TestConfigurationDoc(t *testing.T) {
	doc := readDoc(t, "configuration.md")
	_, sample, _ := strings.Cut(doc, "```toml\n")
	sample, _, _ = strings.Cut(sample, "```")
	dir := t.TempDir()
	makeCertificate(t, dir, 1)
	write(t, filepath.Join(dir, "users"), "alice@example.org:{PLAIN}a\n")
	file := filepath.Join(dir, "maildird.toml")
	write(t, file, strings.NewReplacer("/etc/maildird", dir, "/srv/mail", dir, "/var/cache/maildird", dir).Replace(sample))
	c, err := readConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.folders) != 2 || c.folders[1].SpecialUse != `\Trash` || len(c.policy.Exceptions) != 1 || c.policy.Exceptions[0].Delete == nil {
		t.Errorf("the sample is read as %+v", c)
	}
	var walk func(keys []key)
	walk = func(keys []key) {
		for _, k := range keys {
			switch to := k.to.(type) {
			case []key:
				if !strings.Contains(doc, "\n## `["+k.name+"]`\n") {
					t.Errorf("table %s is not documented", k.name)
				}
				walk(to)
			case func() []key:
				walk(to())
			default:
				if !strings.Contains(doc, "\n| `"+k.name+"` |") {
					t.Errorf("key %s is not documented", k.name)
				}
				if !regexp.MustCompile(`(?m)^` + k.name + `\s+=`).MatchString(sample) {
					t.Errorf("key %s is not in the sample", k.name)
				}
			}
		}
	}
	walk(c.keys())
}

// What becomes of each of Dovecot's settings is in docs/migration.md, and the message that it shows is what is said.
func TestMigrationDoc(t *testing.T) {
	doc := readDoc(t, "migration.md")
	table := regexp.MustCompile(`(?m)^\| (.*) \| (.*) \|$`).FindAllStringSubmatch(doc, -1)
	row := func(name string) string {
		for _, cells := range table {
			if strings.Contains(cells[1], "`"+name) {
				return cells[2]
			}
		}
		t.Errorf("%s is not documented", name)
		return ""
	}
	for name, o := range dovecotOptions {
		want := o.key
		if o.refused != "" {
			want = "refused"
		} else if o.leftOut != "" {
			want = "left out"
		}
		if got := row(name); !strings.Contains(got, want) {
			t.Errorf("%s: is documented as %q, and is %q", name, got, want)
		}
	}
	for _, driver := range dovecotDrivers {
		row(driver + ":")
	}
	m := regexp.MustCompile(`(?m)^    maildird.toml:9: mail.location: "(\S+)" is .*$`).FindStringSubmatch(doc)
	if m == nil {
		t.Fatal("no message")
	}
	var l location
	if err := l.UnmarshalText([]byte(m[1])); err == nil || strings.TrimSpace(m[0]) != "maildird.toml:9: mail.location: "+err.Error() {
		t.Errorf("documented is %s, said is %v", m[0], err)
	}
}

// Every metric of maildird is in docs/monitoring.md, and no others are.
func TestMonitoringDoc(t *testing.T) {
	m := newMetrics()
	m.registry.MustRegister(statsCollector{func() backend.Stats { return backend.Stats{} }})
	dir := t.TempDir()
	makeCertificate(t, dir, 1)
	certificate, err := newCertificate(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), nil)
	if err != nil {
		t.Fatal(err)
	}
	m.certificate(certificate)
	m.command(backend.Command{Name: "NOOP"})
	rows := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(maildird_\\w+)` \\|").FindAllStringSubmatch(readDoc(t, "monitoring.md"), -1) {
		rows[row[1]] = true
	}
	families, err := prometheus.Gatherer(m.registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if name := f.GetName(); strings.HasPrefix(name, "maildird_") {
			if !rows[name] {
				t.Errorf("%s is not documented", name)
			}
			delete(rows, name)
		}
	}
	for name := range rows {
		t.Errorf("%s is documented, and there is no such metric", name)
	}
}
