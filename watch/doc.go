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
// A [Watcher] takes inotify where it can be had. It polls a directory that does not exist, that is on a
// file system that hears only of changes made through the same mount (NFS, SMB, FUSE and their like), and
// when a limit of watches is reached, the kernel's or [Options].Limit. Except on Linux it polls everything.
//
// When polling sees a change, events are tried again: a directory that was made meanwhile gets them.
// When a watched one is removed, moved or replaced, watching begins anew with what has its name by now.
// Either way there is a hint without a name once the new source has begun.
//
// inotify knows directories, not paths: that one further up was moved, or a symbolic link on the way
// changed, is not heard of, and hints go on to come from where the directory is. Nor is a directory
// that was removed for as long as a process has it open, or one whose file system was unmounted.
//
// One goroutine gives all hints of events. Up to 65536 events wait for it; fsnotify waits for nobody,
// as it would with its lock held. If more come, or they come faster than they are read from the kernel
// (fs.inotify.max_queued_events), some are lost, and there is a hint without a name for each directory.
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
