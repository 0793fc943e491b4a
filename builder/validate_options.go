package builder

import (
	"github.com/kscratch/kscratch/ignition"
	"github.com/kscratch/kscratch/ignition/field"
)

// validateOptions reports what is wrong with the parts of a spec that are
// handed on to docker and to Kubernetes' own programs. What only those programs
// know is asked of them when they are at hand: see [checkFlags].
func validateOptions(s *Spec, bad report) {
	below(bad, "docker.options", ignition.DockerOptionProblems(s.Docker.Options))
	below(bad, "kubelet.extraConfig", ignition.KubeletConfigProblems(s.Kubelet.ExtraConfig))
	below(bad, "kubeProxy.extraConfig", ignition.ProxyConfigProblems(s.KubeProxy.ExtraConfig))
	for _, f := range s.flagSets() {
		below(bad, f.path, ignition.FlagProblems(f.program, f.flags))
	}
	for i, p := range s.Manifests.Patches {
		at := field.Index("manifests.patches", i)
		oneOf(bad, at+".target", p.Target, ignition.PatchTargets...)
		oneOf(bad, at+".type", p.Type, ignition.PatchTypes...)
		if (p.Patch == nil) == (p.File == "") {
			bad(at, "wants one of patch and file", "write the patch here, or name the file that has it")
		}
	}
	roles(bad, "roleButane", s.RoleButane)
}

// below reports problems of the value at a path.
func below(bad report, path string, problems []field.Problem) {
	for _, p := range problems {
		p = p.Below(path)
		bad(p.Path, p.Msg, p.Fix)
	}
}

// flagSet is the flags that a spec gives one program.
type flagSet struct {
	program string
	path    string // in the spec
	flags   map[string]string
	masters bool // the program runs on masters only
}

// flagSets lists the programs that a spec may give flags to.
func (s *Spec) flagSets() []flagSet {
	c := s.ControlPlane
	return []flagSet{
		{"kubelet", "kubelet.extraFlags", s.Kubelet.ExtraFlags, false},
		{"kube-proxy", "kubeProxy.extraFlags", s.KubeProxy.ExtraFlags, false},
		{"kube-apiserver", "controlPlane.apiServer.extraFlags", c.APIServer.ExtraFlags, true},
		{"kube-controller-manager", "controlPlane.controllerManager.extraFlags", c.ControllerManager.ExtraFlags, true},
		{"kube-scheduler", "controlPlane.scheduler.extraFlags", c.Scheduler.ExtraFlags, true},
		{"etcd", "etcd.extraFlags", s.Etcd.ExtraFlags, true},
	}
}
