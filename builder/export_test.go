package builder

import "github.com/kscratch/kscratch/ignition"

// IgnitionConfig lets tests see what a node is told without building an image.
func IgnitionConfig(s *Spec, l *Lock, role Role, o Options) ([]byte, ignition.Report, error) {
	t, err := ignitionConfig(s, l, role, o)
	return t.config, t.report, err
}
