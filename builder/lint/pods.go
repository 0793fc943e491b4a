package lint

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/kscratch/kscratch/ignition/field"
	"github.com/kscratch/kscratch/ignition/staticpod"
)

// pod is one that the kubelet runs from a file, or that an object of a
// bootstrap manifest makes.
type pod struct {
	where  string // the file that it is in
	object string // kind and name; empty for a static pod
	at     string // path of the pod's spec in the object
	static bool
	corev1.Pod
}

// container is one of a pod's containers, with its place.
type container struct {
	where string
	*corev1.Container
}

// containers returns those of a pod, the ones that run first among them.
func (p *pod) containers() []container {
	var out []container
	add := func(name string, list []corev1.Container) {
		for i := range list {
			where := p.where + ": "
			if p.object != "" {
				where += p.object + ": "
			}
			out = append(out, container{where + p.at + "." + field.Index(name, i), &list[i]})
		}
	}
	add("initContainers", p.Spec.InitContainers)
	add("containers", p.Spec.Containers)
	return out
}

// pods returns the pods of all manifests, and findings about manifests that are
// none. It reads the files that the kubelet and kubectl would.
func (all Files) pods() (pods []pod, bad []Finding) {
	for _, d := range []struct {
		dir    string
		static bool
		fix    string
	}{
		{manifests, true, "write one pod to the file, as YAML or JSON"},
		{bootstrap, false, "write objects of Kubernetes to the file, separated by ---"},
	} {
		for _, p := range all.in(d.dir) {
			b, ok := all.read(p)
			kubectl := slices.Contains([]string{".yaml", ".yml", ".json"}, path.Ext(p))
			if !ok || strings.HasPrefix(path.Base(p), ".") || !d.static && !kubectl {
				continue
			}
			found, err := podsIn(b)
			if err != nil {
				bad = append(bad, Finding{Severity: Error, Where: all.where(p), What: err.Error(), Fix: d.fix})
			}
			for _, f := range found {
				f.where, f.static = all.where(p), d.static
				pods = append(pods, f)
			}
		}
	}
	return pods, bad
}

// podsIn returns the pods that the objects of a YAML stream are or make.
func podsIn(b []byte) ([]pod, error) {
	var out []pod
	r := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(b)))
	for n := 1; ; n++ {
		doc, err := r.Read()
		switch {
		case errors.Is(err, io.EOF) && n == 1:
			return nil, errors.New("is empty")
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return out, fmt.Errorf("document %d: %w", n, err)
		}
		raw, err := yaml.YAMLToJSONStrict(doc)
		if err != nil {
			return out, fmt.Errorf("document %d: %w", n, err)
		}
		found, err := podsOf(raw)
		if err != nil {
			return out, fmt.Errorf("document %d: %w", n, err)
		}
		out = append(out, found...)
	}
}

// workloads are the kinds that make pods of spec.template.
var workloads = []string{"Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "ReplicationController", "Job"}

// podsOf returns the pods of one object. Objects that make none have none.
func podsOf(raw []byte) ([]pod, error) {
	var kind struct {
		Kind  string            `json:"kind"`
		Items []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(raw, &kind); err != nil {
		return nil, fmt.Errorf("is no object of Kubernetes: %w", err)
	}
	if bytes.Equal(raw, []byte("null")) {
		return nil, nil // only comments
	}
	if kind.Kind == "" {
		return nil, errors.New("is no object of Kubernetes: it has no kind")
	}
	if strings.HasSuffix(kind.Kind, "List") {
		var out []pod
		for _, item := range kind.Items {
			found, err := podsOf(item)
			if err != nil {
				return nil, err
			}
			out = append(out, found...)
		}
		return out, nil
	}
	return podOf(kind.Kind, raw)
}

// podOf returns the pod that an object is or makes, if any.
func podOf(kind string, raw []byte) ([]pod, error) {
	var o struct {
		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
		Spec struct {
			Template    corev1.PodTemplateSpec `json:"template"`
			JobTemplate struct {
				Spec struct {
					Template corev1.PodTemplateSpec `json:"template"`
				} `json:"spec"`
			} `json:"jobTemplate"`
		} `json:"spec"`
	}
	var p pod
	switch {
	case kind == "Pod":
		if err := json.Unmarshal(raw, &p.Pod); err != nil {
			return nil, fmt.Errorf("is no pod: %w", err)
		}
		p.at = "spec"
		return []pod{p}, nil
	case kind != "CronJob" && !slices.Contains(workloads, kind):
		return nil, nil
	}
	if err := json.Unmarshal(raw, &o); err != nil {
		return nil, fmt.Errorf("is no %s: %w", kind, err)
	}
	p.at, p.Spec = "spec.template.spec", o.Spec.Template.Spec
	if kind == "CronJob" {
		p.at, p.Spec = "spec.jobTemplate.spec.template.spec", o.Spec.JobTemplate.Spec.Template.Spec
	}
	p.object = kind + " " + o.Metadata.Name
	return []pod{p}, nil
}

func podManifest(n *node) []Finding { return n.broken }

// podObjects asks what the kubelet asks.
func podObjects(n *node) []Finding {
	var out []Finding
	for i := range n.pods {
		p := &n.pods[i]
		if !p.static {
			continue
		}
		for _, bad := range staticpod.Check(&p.Pod) {
			out = append(out, Finding{Severity: Error, Where: p.where, What: bad.Path + " " + bad.Msg, Fix: bad.Fix})
		}
	}
	return out
}
