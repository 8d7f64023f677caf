//go:build tools

// Package buildkit names the programs of BuildKit that buildkit.sh builds: of the last version that pushes a cache as an
// index of blobs by itself. It cannot be installed by `go install`, since its go.mod has exclude directives.
package buildkit

import (
	_ "github.com/moby/buildkit/cmd/buildctl"
	_ "github.com/moby/buildkit/cmd/buildkitd"
)
