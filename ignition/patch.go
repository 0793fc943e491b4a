package ignition

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/kscratch/kscratch/ignition/field"
	"github.com/kscratch/kscratch/ignition/staticpod"
)

// Patch changes the manifest of a static pod.
type Patch struct {
	Target string // one of [PatchTargets]
	Type   string // one of [PatchTypes]
	Patch  any    // a mapping, or for json a list of operations
}

// The two types of patches.
//
//   - Strategic is a strategic merge patch: a part of a pod, in which lists of
//     containers, volumes, environment variables and the like are merged by the
//     names of their elements.
//     https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/
//   - JSON is a JSON patch, RFC 6902.
const (
	Strategic = "strategic"
	JSON      = "json"
)

// PatchTypes and PatchTargets list what a patch may be, and what it may change.
var (
	PatchTypes   = []string{Strategic, JSON}
	PatchTargets = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}
)

// PatchError says what is wrong with one of a node's patches.
type PatchError struct {
	Index    int             // of the patch in [Node.Patches]
	Target   string          // the static pod
	Problems []field.Problem // their paths are in the patch
}

func (e *PatchError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = fmt.Sprintf("patch %d of %s: %s", e.Index, e.Target, p)
	}
	return strings.Join(lines, "\n")
}

// patched applies a node's patches to the manifest of a static pod. It does so
// to what is written rather than to the typed pod, so that what the patches say
// stays as it is: writing a pod leaves out what reads as the default.
func (n Node) patched(pod corev1.Pod) (any, error) {
	m, err := fields(pod)
	if err != nil {
		return nil, err
	}
	var out any = m
	for i, p := range n.Patches {
		if p.Target != pod.Name {
			continue
		}
		var problems []field.Problem
		if out, problems = p.apply(out); len(problems) == 0 {
			problems = checkPatched(out, pod.Name)
		}
		if len(problems) > 0 {
			return nil, &PatchError{i, pod.Name, problems}
		}
	}
	return out, nil
}

func (p Patch) apply(pod any) (any, []field.Problem) {
	body, err := json.Marshal(pod)
	if err != nil {
		return nil, problem("", err)
	}
	var problems []field.Problem
	switch p.Type {
	case Strategic:
		body, problems = strategic(body, p.Patch)
	case JSON:
		body, problems = operations(body, p.Patch)
	default:
		return nil, []field.Problem{{Msg: fmt.Sprintf("type %q is not known", p.Type), Fix: field.DidYouMean(p.Type, PatchTypes)}}
	}
	if len(problems) > 0 {
		return nil, problems
	}
	var out any
	if err := json.Unmarshal(body, &out); err != nil {
		return nil, problem("", err)
	}
	return out, nil
}

func problem(path string, err error) []field.Problem {
	return []field.Problem{{Path: path, Msg: oneLine(err.Error())}}
}

// strategic applies a strategic merge patch, which has nothing in it that a pod
// has not, but for directives.
func strategic(body []byte, patch any) ([]byte, []field.Problem) {
	m, ok := patch.(map[string]any)
	if !ok {
		return nil, []field.Problem{{Msg: "is not a mapping", Fix: "write the part of the pod that is to change, as YAML without quotes or |"}}
	}
	if bad := field.Decode(withoutDirectives(m), new(corev1.Pod)); len(bad) > 0 {
		return nil, bad
	}
	b, err := json.Marshal(patch)
	if err != nil {
		return nil, problem("", err)
	}
	if body, err = strategicpatch.StrategicMergePatch(body, b, corev1.Pod{}); err != nil {
		return nil, problem("", err)
	}
	return body, nil
}

// withoutDirectives leaves out what steers a strategic merge: keys that begin
// with $. Elements of lists stay, since their places are to be named.
func withoutDirectives(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			if !strings.HasPrefix(k, "$") {
				out[k] = withoutDirectives(e)
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = withoutDirectives(e)
		}
		return out
	}
	return v
}

// operations applies a JSON patch, one operation after the other, so that the
// one which fails has a place.
func operations(body []byte, patch any) ([]byte, []field.Problem) {
	list, ok := patch.([]any)
	if !ok {
		return nil, []field.Problem{{Msg: "is not a list", Fix: "write a list of operations such as {op: add, path: /spec/hostname, value: x}"}}
	}
	for i, op := range list {
		at := field.Index("", i)
		if bad := operationProblems(op); len(bad) > 0 {
			for j := range bad {
				bad[j] = bad[j].Below(at)
			}
			return nil, bad
		}
		b, err := json.Marshal([]any{op})
		if err != nil {
			return nil, problem(at, err)
		}
		decoded, err := jsonpatch.DecodePatch(b)
		if err == nil {
			body, err = decoded.Apply(body)
		}
		if err != nil {
			return nil, problem(at, err)
		}
	}
	return body, nil
}

// operation is one of a JSON patch, RFC 6902, section 4.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	From  string `json:"from"`
	Value any    `json:"value"`
}

var operationNames = []string{"add", "remove", "replace", "move", "copy", "test"}

func operationProblems(v any) []field.Problem {
	var op operation
	if bad := field.Decode(v, &op); len(bad) > 0 {
		return bad
	}
	if !slices.Contains(operationNames, op.Op) {
		return []field.Problem{{Path: "op", Msg: fmt.Sprintf("%q is not known", op.Op), Fix: "use one of " + strings.Join(operationNames, ", ")}}
	}
	if !strings.HasPrefix(op.Path, "/") {
		return []field.Problem{{Path: "path", Msg: fmt.Sprintf("%q is not a JSON pointer into the pod", op.Path), Fix: "begin it with /"}}
	}
	return nil
}

// checkPatched reads what a patch made of a static pod. Paths in the pod tell
// nothing about places in a patch, so they go into the message.
func checkPatched(v any, name string) []field.Problem {
	var pod corev1.Pod
	out := field.Decode(v, &pod)
	if len(out) == 0 {
		out = slices.Concat(staticpod.Check(&pod), lostVolumes(&pod))
	}
	if pod.APIVersion != "v1" || pod.Kind != "Pod" || pod.Name != name || pod.Namespace != "kube-system" {
		out = append(out, field.Problem{Path: "metadata", Msg: "the pod has another kind, name or namespace", Fix: "leave apiVersion, kind, metadata.name and metadata.namespace alone"})
	}
	for i, p := range out {
		out[i] = field.Problem{Msg: "makes a pod that does not start: " + p.Path + " " + p.Msg, Fix: p.Fix}
	}
	return out
}

// lostVolumes returns the mounts of volumes that a pod does not have.
func lostVolumes(pod *corev1.Pod) []field.Problem {
	var out []field.Problem
	look := func(path string, list []corev1.Container) {
		for i, c := range list {
			for j, m := range c.VolumeMounts {
				if !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name }) {
					at := field.Index(field.Index(path, i)+".volumeMounts", j)
					out = append(out, field.Problem{Path: at, Msg: "names the volume " + m.Name + ", which is not there"})
				}
			}
		}
	}
	look("spec.initContainers", pod.Spec.InitContainers)
	look("spec.containers", pod.Spec.Containers)
	return out
}
