// Package watch tells when a directory may have changed. It gives hints, never truth: a hint says
// where to look, and what is there a look at the disk says. A hint may come twice, for a change of one's
// own, or for nothing; between a change and its hint may lie the whole interval of polling.
//
// # Where hints come from
//
// There are two sources:
//
//   - inotify, through fsnotify and with one instance for a Watcher: hints come at once and name the
//     file.
//   - polling: the directory is looked at every few seconds, and when its modification time or the
//     directory itself is another, there is a hint without a name.
//
// A [Watcher] takes inotify where it can be had. It polls a directory that does not exist (yet), that
// is on a file system that hears only of changes made through the same mount (NFS, SMB, FUSE and
// their like), when the limit of watches is reached, and one that was removed or moved
// while it was watched: the next directory under that name is another one. Except on Linux it polls everything.
//
// Whoever uses hints does not know which source they are from. First watch, then look: what
// changes after Watch has returned is hinted.
//
// # When all was told
//
// Events take a moment. [Watch.Settle] waits until those of all changes made before it were told, and
// reports whether that is certain. If it is, the names of all hints so far are all that changed, or one of
// the hints had no name.
package watch
