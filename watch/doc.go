// Package watch tells when another program may have changed a directory.
//
// What it gives are hints, never the truth: a hint says where to look, and what is there says only
// the disk. A hint may come for nothing; after every change at least one comes, at once where the
// system tells of changes (inotify), else within the polling interval.
package watch
