package builder

import "fmt"

// InputError says that an input of a build cannot be used: it cannot be had,
// or, if Tampered, it is not what was signed or pinned.
type InputError struct {
	What     string // the input
	Tampered bool
	Err      error
}

func (e *InputError) Error() string { return fmt.Sprintf("%s: %v", e.What, e.Err) }

// OutputError says that a file cannot be written where it is wanted.
type OutputError struct {
	Path string
	Err  error
}

func (e *OutputError) Error() string { return fmt.Sprintf("writing %s: %v", e.Path, e.Err) }

// Unwrap returns the cause.
func (e *OutputError) Unwrap() error { return e.Err }

// Unwrap returns the cause.
func (e *InputError) Unwrap() error { return e.Err }
