package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
)

// loadCertificate reads a certificate with its chain, and its key. It fails if they don't belong
// together.
func loadCertificate(cert, key string) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", cert, key, err)
	}
	return &pair, nil
}

// newCertificate loads the certificate, and again whenever one of its files changes. Programs that
// renew it replace one file after the other; the pair between does not fit, and is not used.
func newCertificate(cert, key string, log *slog.Logger) (*reloaded[*tls.Certificate], error) {
	return newReloaded(log, func() (*tls.Certificate, error) { return loadCertificate(cert, key) }, cert, key)
}

// tlsConfig asks for the certificate at each handshake.
func tlsConfig(certificate *reloaded[*tls.Certificate]) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return certificate.get(), nil
		},
	}
}
