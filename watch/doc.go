// Package watch tells when another program may have changed a directory.
package watch
