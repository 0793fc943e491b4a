#!/usr/bin/env bash
# The linters, at pinned versions. Needs the Go module proxy the first time.
set -euo pipefail
cd "$(dirname "$0")/.."

unformatted=$(git ls-files '*.go' | xargs gofmt -l)
if [ -n "$unformatted" ]; then
  echo "not formatted by gofmt:" >&2
  echo "$unformatted" >&2
  exit 1
fi
go vet -tags 'foreign net boot cluster conformance' ./...
go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 -tags 'foreign net boot cluster conformance' ./...
go mod tidy -diff
if command -v golangci-lint >/dev/null; then golangci-lint run; fi
