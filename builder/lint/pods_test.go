package lint_test

import (
	"testing"

	"github.com/kscratch/kscratch/builder/lint"
)

// static is a static pod of the user's with one container.
func static(container string) string {
	return "-- config/etc/kubernetes/manifests/a.yaml --\nkind: Pod\nspec: {containers: [" + container + "], volumes: [{name: bin, hostPath: {path: /usr/bin}}, {name: e, emptyDir: {}}]}\n"
}

func TestManifests(t *testing.T) {
	const manifest = "-- config/etc/kubernetes/manifests/a.yaml --\n"
	const at = "/etc/kubernetes/manifests/a.yaml (butane[0] a.bu): "
	run(t, []each{
		{"not YAML", manifest + "a: [\n", nil, "pod-manifest error " + at + "document 1: "},
		{"no object", manifest + "[a]\n", nil, "pod-manifest error " + at + "document 1: is no object of Kubernetes"},
		{"no kind", manifest + "spec: {}\n", nil, "pod-manifest error " + at + "document 1: is no object of Kubernetes: it has no kind"},
		{"no pod", manifest + "kind: Pod\nspec: {containers: a}\n", nil, "pod-manifest error " + at + "document 1: is no pod: "},
		{"duplicate key", manifest + "kind: Pod\nkind: Pod\n", nil, "pod-manifest error " + at + "document 1: "},
		{"a list of pods", manifest + "kind: PodList\nitems: [{kind: Pod, spec: {containers: [{image: 'none:1'}]}}]\n", nil,
			`image-baked error ` + at + `spec.containers[0]: image "none:1" is not baked`},
		{"objects of the API", manifest + "kind: Pod\nspec: {serviceAccountName: a, volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: t}}]}}, {name: w, persistentVolumeClaim: {claimName: c}}]}\n", nil, `
			pod-api-objects error ` + at + `spec.serviceAccountName refers to a ServiceAccount, which a static pod may not
			pod-api-objects error ` + at + `spec.volumes[0].projected.sources[0].serviceAccountToken refers to a ServiceAccount
			pod-api-objects error ` + at + `spec.volumes[1].persistentVolumeClaim refers to a PersistentVolumeClaim`},
		{"the same of a bootstrap manifest", "-- config/etc/kubernetes/bootstrap/a.yaml --\nkind: Pod\nspec: {serviceAccountName: a}\n", nil, ""},
		{"bad bootstrap manifests", "-- config/etc/kubernetes/bootstrap/a.yaml --\nkind: Job\nspec: 1\n-- config/etc/kubernetes/bootstrap/b.json --\n{\n", nil, `
			pod-manifest error /etc/kubernetes/bootstrap/a.yaml (butane[0] a.bu): document 1: is no Job
			pod-manifest error /etc/kubernetes/bootstrap/b.json (butane[0] a.bu): document 1: `},
	})
}

func TestImages(t *testing.T) {
	const at = "/etc/kubernetes/manifests/a.yaml (butane[0] a.bu): spec.containers[0]: "
	run(t, []each{
		{"the short name", static("{image: 'app:v1'}"), nil, ""},
		{"docker's own name", static("{image: 'docker.io/app:v1'}"), nil, ""},
		{"the whole name", static("{image: 'index.docker.io/library/app:v1'}"), nil, ""},
		{"a digest", static("{image: 'app@sha256:" + zeros + "'}"), func(in *lint.Input) { in.Images[3].Digest = "sha256:" + zeros }, ""},
		{"a tag and a digest", static("{image: 'app:v9@sha256:" + zeros + "'}"), func(in *lint.Input) { in.Images[3].Index = "sha256:" + zeros }, ""},
		{"another digest", static("{image: 'app@sha256:" + zeros + "'}"), nil, "image-baked error " + at},
		{"another tag", static("{image: 'app:v2'}"), nil, "image-baked error " + at + `image "app:v2" is not baked; app:v1 is`},
		{"another registry", static("{image: 'quay.io/other:v1'}"), nil, "image-baked error " + at + `image "quay.io/other:v1" is not baked`},
		{"no name", static("{image: 'A b'}"), nil, "image-baked error " + at + `image "A b" is not baked`},
		{"none", static("{name: a}"), nil, "image-baked error " + at + "has no image"},
		{"of an init container", "-- config/etc/kubernetes/manifests/a.yaml --\nkind: Pod\nspec: {initContainers: [{image: 'b:1'}]}\n", nil,
			`image-baked error /etc/kubernetes/manifests/a.yaml (butane[0] a.bu): spec.initContainers[0]: image "b:1" is not baked`},
		{"of a workload", "-- config/etc/kubernetes/bootstrap/a.yaml --\nkind: CronJob\nmetadata: {name: x}\nspec: {jobTemplate: {spec: {template: {spec: {containers: [{image: 'b:1'}]}}}}}\n" +
			"---\nkind: DaemonSet\nmetadata: {name: z}\nspec: {template: {spec: {containers: [{image: 'c:1'}]}}}\n", nil, `
			image-baked warning /etc/kubernetes/bootstrap/a.yaml (butane[0] a.bu): CronJob x: spec.jobTemplate.spec.template.spec.containers[0]: image "b:1" is not baked, so nodes will pull it
			image-baked warning /etc/kubernetes/bootstrap/a.yaml (butane[0] a.bu): DaemonSet z: spec.template.spec.containers[0]: image "c:1"`},
		{"always pulled", static("{image: 'app:v1', imagePullPolicy: Always}"), nil, "image-pull warning " + at + `image "app:v1" is baked, and yet pulled at each start`},
		{"latest", static("{image: example.org/app}"), nil, "image-pull warning " + at},
		{"latest with a policy", static("{image: example.org/app, imagePullPolicy: Never}"), nil, ""},
		{"another platform", "", func(in *lint.Input) { in.Images[3].Arch = "arm64" }, `image-platform error image app:v1: is for "linux"/"arm64"`},
	})
}

const zeros = "0000000000000000000000000000000000000000000000000000000000000000"

func TestPause(t *testing.T) {
	run(t, []each{
		{"not baked", "", func(in *lint.Input) { in.Images[2].Name = "registry.k8s.io/pause:3.9" },
			`image-pause error /etc/systemd/system/cri-docker.service: --pod-infra-container-image: image "registry.k8s.io/pause:3.10.1" is not baked; registry.k8s.io/pause:3.9 is`},
		{"another for the kubelet", "-- config/etc/systemd/system/kubelet.service.d/a.conf --\n[Service]\nExecStart=\nExecStart=/bin/kubelet --pod-infra-container-image=app:v1\n", nil,
			"image-pause error /etc/systemd/system/kubelet.service: --pod-infra-container-image is app:v1, and that of cri-dockerd registry.k8s.io/pause:3.10.1"},
		{"no cri-dockerd", "", func(in *lint.Input) { delete(in.Files, "/etc/systemd/system/cri-docker.service") },
			"unit-missing error /etc/systemd/system/kubelet.service: Requires=cri-docker.service: there is no such unit"},
	})
}

func TestCommands(t *testing.T) {
	const at = "image-command error /etc/kubernetes/manifests/a.yaml (butane[0] a.bu): spec.containers[0]: "
	none := func(in *lint.Input) { in.Images[3].Entrypoint = nil }
	run(t, []each{
		{"the image's own by PATH", static("{image: 'app:v1', args: [x]}"), nil, ""},
		{"by a linked directory", static("{image: 'app:v1', command: [/bin/app]}"), nil, ""},
		{"neither has one", static("{image: 'app:v1'}"), none, `
			image-command error /etc/kubernetes/bootstrap/10.yaml: Deployment app: spec.template.spec.containers[0]: has no command, and neither has image app:v1
			` + at + "has no command, and neither has image app:v1"},
		{"the image's Cmd", static("{image: 'app:v1'}"), func(in *lint.Input) { none(in); in.Images[3].Cmd = []string{"app"} }, ""},
		{"arguments in place of it", static("{image: 'app:v1', args: [-v]}"), func(in *lint.Input) { none(in); in.Images[3].Cmd = []string{"app"} },
			at + "image app:v1 has no program -v"},
		{"docker's PATH", static("{image: 'app:v1', command: [app]}"), func(in *lint.Input) { in.Images[3].Env = nil }, ""},
		{"no such program", static("{image: 'app:v1', command: [/usr/bin/sh]}"), nil, at + "image app:v1 has no program /usr/bin/sh"},
		{"no program", static("{image: 'app:v1', command: [/etc/passwd]}"), nil, at + "image app:v1 has no program /etc/passwd"},
		{"a variable", static("{image: 'app:v1', command: [$(SHELL)]}"), nil, ""},
		{"mounted from the node", static("{image: 'app:v1', command: [/host/helper], volumeMounts: [{name: bin, mountPath: /host/}]}"), nil, ""},
		{"not there on the node", static("{image: 'app:v1', command: [/host/none], volumeMounts: [{name: bin, mountPath: /host}]}"), nil, at + "image app:v1 has no program /host/none"},
		{"in a volume", static("{image: 'app:v1', command: [/host/a], volumeMounts: [{name: e, mountPath: /host}]}"), nil, ""},
	})
}
