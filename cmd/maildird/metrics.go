package main

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"sync/atomic"

	"github.com/emersion/go-imap/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/imapmaildir/imapmaildir/backend"
	"github.com/imapmaildir/imapmaildir/maildir"
)

// metrics are what Prometheus is told; docs/monitoring.md describes each.
type metrics struct {
	registry *prometheus.Registry
	commands *prometheus.CounterVec
	duration *prometheus.HistogramVec
	logins   *prometheus.CounterVec
	lockWait *prometheus.HistogramVec
	lockHeld prometheus.Histogram
	ending   atomic.Bool // the server is shutting down
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		commands: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "maildird_commands_total", Help: "Commands, by name and by what was answered: OK, NO, BAD, BYE.",
		}, []string{"command", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "maildird_command_duration_seconds", Help: "How long commands took, without IDLE.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"command"}),
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "maildird_logins_total", Help: "Attempts to log in, by result: ok, wrong (user or password), unavailable.",
		}, []string{"result"}),
		lockWait: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "maildird_lock_wait_seconds", Help: "How long dovecot-uidlist.lock was waited for, by result: ok, no.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120},
		}, []string{"result"}),
		lockHeld: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "maildird_lock_held_seconds", Help: "How long dovecot-uidlist.lock was held.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5},
		}),
	}
	for _, result := range []string{"ok", "no"} {
		m.lockWait.WithLabelValues(result)
	}
	for _, result := range []string{"ok", "wrong", "unavailable"} {
		m.logins.WithLabelValues(result)
	}
	m.registry.MustRegister(m.commands, m.duration, m.logins, m.lockWait, m.lockHeld,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// command counts a command; it is backend.Options.Observe.
func (m *metrics) command(c backend.Command) {
	m.commands.WithLabelValues(c.Name, result(c.Err)).Inc()
	if c.Name != "IDLE" { // it takes as long as the client likes
		m.duration.WithLabelValues(c.Name).Observe(c.Took.Seconds())
	}
}

// ObserveLock counts a use of a lock; it is for backend.Options.Locks.
func (m *metrics) ObserveLock(u maildir.LockUse) {
	if u.Err != nil {
		m.lockWait.WithLabelValues("no").Observe(u.Waited.Seconds())
		return
	}
	m.lockWait.WithLabelValues("ok").Observe(u.Waited.Seconds())
	m.lockHeld.Observe(u.Held.Seconds())
}

// result is the type of the tagged response, or BYE. For errors that are no response go-imap
// answers NO [SERVERBUG].
func result(err error) string {
	if err == nil {
		return string(imap.StatusResponseTypeOK)
	}
	if ierr, ok := errors.AsType[*imap.Error](err); ok {
		return string(ierr.Type)
	}
	return string(imap.StatusResponseTypeNo)
}

func (m *metrics) login(result string) { m.logins.WithLabelValues(result).Inc() }

// certificate tells when the certificate in use ends.
func (m *metrics) certificate(c *reloaded[*tls.Certificate]) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "maildird_certificate_not_after_timestamp_seconds", Help: "When the TLS certificate in use ends, in Unix time.",
	}, func() float64 { return float64(c.get().Leaf.NotAfter.Unix()) }))
}

// backend tells what the backend has open and did.
func (m *metrics) backend(b *backend.Backend) {
	m.registry.MustRegister(statsCollector{b.Stats})
}

// A statsCollector turns one reading of the statistics into metrics that agree with each other.
type statsCollector struct{ read func() backend.Stats }

var (
	sessionsDesc  = prometheus.NewDesc("maildird_sessions", "Connections, logged in or not.", nil, nil)
	loggedInDesc  = prometheus.NewDesc("maildird_sessions_logged_in", "Connections that are logged in.", nil, nil)
	mailboxesDesc = prometheus.NewDesc("maildird_open_mailboxes", "Mailboxes that are in use.", nil, nil)
	scansDesc     = prometheus.NewDesc("maildird_scans_total", "Readings of mailbox directories.", nil, nil)
	watchesDesc   = prometheus.NewDesc("maildird_watches", "Directories that are watched, by how: events or polling.", []string{"by"}, nil)
	overflowsDesc = prometheus.NewDesc("maildird_watch_overflows_total", "Times that events came faster than they were read.", nil, nil)
	lostDesc      = prometheus.NewDesc("maildird_watch_lost_total", "Directories that were removed, moved or replaced while they were watched.", nil, nil)
	hintsDesc     = prometheus.NewDesc("maildird_watch_hints_total", "Hints that a directory may have changed.", nil, nil)
)

func (c statsCollector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

func (c statsCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.read()
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	counter := func(d *prometheus.Desc, n uint64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n))
	}
	gauge(sessionsDesc, s.Sessions)
	gauge(loggedInDesc, s.LoggedIn)
	gauge(mailboxesDesc, s.OpenMailboxes)
	counter(scansDesc, s.Scans)
	gauge(watchesDesc, s.Watch.Watched, "events")
	gauge(watchesDesc, s.Watch.Polled, "polling")
	counter(overflowsDesc, s.Watch.Overflows)
	counter(lostDesc, s.Watch.Lost)
	counter(hintsDesc, s.Watch.Hints)
}

// handler serves /metrics and /healthz.
func (m *metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if m.ending.Load() {
			http.Error(w, "shutting down", http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "ok\n")
	})
	return mux
}
