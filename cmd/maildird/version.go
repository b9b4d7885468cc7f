package main

import (
	"fmt"
	"runtime/debug"
)

type versionCommand struct{}

func (versionCommand) example() string { return "maildird version" }

func (versionCommand) Run(std *streams) error {
	_, err := fmt.Fprintln(std.out, "maildird", version())
	return err
}

// version is what the go command noted of this binary: the module's version, or the commit, with
// "+dirty" if files were changed since.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version + " " + info.GoVersion
}
