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

// Unwrap returns the cause.
func (e *InputError) Unwrap() error { return e.Err }
