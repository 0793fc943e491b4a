package field

import (
	"maps"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	kubeletv1 "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"
)

func TestDecode(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"nothing", "{}", ""},
		{"right", "{maxPods: 20, evictionHard: {memory.available: 1Gi}, featureGates: {A: true}}", ""},
		{"typo", "maxPod: 20", "maxPod: is no field of KubeletConfiguration; did you mean maxPods?"},
		{"case counts", "maxpods: 20", "maxpods: is no field of KubeletConfiguration; did you mean maxPods?"},
		{"nothing near", "xyz: 20", "xyz: is no field of KubeletConfiguration"},
		{"below", "{authentication: {x509: {clientCaFile: a}}, memorySwap: {swap: x}}",
			"authentication.x509.clientCaFile: is no field of KubeletConfiguration; did you mean clientCAFile?\n" +
				"memorySwap.swap: is no field of KubeletConfiguration"},
		{"in a list", "registerWithTaints: [{key: a}, {kee: b}]", "registerWithTaints[1].kee: is no field of KubeletConfiguration; did you mean key?"},
		{"inlined", "apiversion: v1", "apiversion: is no field of KubeletConfiguration; did you mean apiVersion?"},
		{"types, all of them", "{maxPods: many, failSwapOn: 1, clusterDNS: [a, [b]], evictionHard: {a: 1}, logging: 3}",
			"clusterDNS[1]: want a string, found array\nevictionHard.a: want a string, found number\nfailSwapOn: want true or false, found number\n" +
				"logging: want a mapping, found number\nmaxPods: want a whole number of type int32, found string"},
		{"all kinds at once", "{maxPods: many, nosuch: 1, registerWithTaints: [{kee: a, key: b}, {key: 3}], clusterDNS: [a, 1], featureGates: 3, memorySwap: {swap: 1}}",
			"clusterDNS[1]: want a string, found number\nfeatureGates: want a mapping, found number\nmaxPods: want a whole number of type int32, found string\n" +
				"memorySwap.swap: is no field of KubeletConfiguration\nnosuch: is no field of KubeletConfiguration\n" +
				"registerWithTaints[0].kee: is no field of KubeletConfiguration; did you mean key?\nregisterWithTaints[1].key: want a string, found number"},
		{"a list wanted", "clusterDNS: a", "clusterDNS: want a list, found string"},
		{"too large", "maxPods: 5000000000", "maxPods: want a whole number of type int32, found number 5000000000"},
		{"a type with its own parser", "{syncFrequency: 5, fileCheckFrequency: 1 hour}",
			`fileCheckFrequency: time: unknown unit " hour" in duration "1 hour"` + "\nsyncFrequency: want a string, found number"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var v any
			if err := yaml.Unmarshal([]byte(tt.in), &v); err != nil {
				t.Fatal(err)
			}
			if got := text(Decode(v, new(kubeletv1.KubeletConfiguration))); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
	if got := text(Decode(func() {}, new(int))); !strings.HasPrefix(got, "is not a value of JSON") {
		t.Error(got)
	}
}

func text(ps []Problem) string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func TestDecodeJSON(t *testing.T) {
	var pod corev1.Pod
	if got := text(DecodeJSON([]byte(`{"spec": {"containers": [{"name": "a"}]}}`), &pod)); got != "" || pod.Spec.Containers[0].Name != "a" {
		t.Errorf("got %q, %v", got, pod.Spec)
	}
	if got, want := text(DecodeJSON([]byte(`{`), &pod)), "is not JSON: unexpected EOF"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNames(t *testing.T) {
	for path, want := range map[string]string{
		"metadata.labels":                  "",
		"spec.containers":                  "",
		"spec.containers[0].livenessProbe": "exec failureThreshold grpc httpGet initialDelaySeconds periodSeconds successThreshold tcpSocket terminationGracePeriodSeconds timeoutSeconds",
		"spec.containers[0].ports[1]":      "containerPort hostIP hostPort name protocol",
		"spec.nosuch":                      "",
		"spec[0]":                          "",
		"spec.hostNetwork.x":               "",
		"":                                 "apiVersion kind metadata spec status",
	} {
		if got := strings.Join(Names(reflect.TypeFor[corev1.Pod](), path), " "); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
}

func TestBelow(t *testing.T) {
	for in, want := range map[string]string{"": "a.b: m", "c": "a.b.c: m", "[1].c": "a.b[1].c: m"} {
		if got := (Problem{Path: in, Msg: "m"}).Below("a.b").String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestLookup(t *testing.T) {
	v := map[string]any{"a": map[string]any{"b": 1}, "c": nil}
	for path, want := range map[string]int{"a": 1, "a b": 2, "a b x": 2, "a x": 1, "x": 0, "c": 1, "c x": 1} {
		if got, _ := Lookup(v, strings.Fields(path)...); got != want {
			t.Errorf("%s: found %d names, want %d", path, got, want)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	for _, tt := range []struct{ word, candidates, want string }{
		{"mtuu", "mtu mode", "did you mean mtu?"},
		{"MTU", "mtu mode", "did you mean mtu?"},
		{"zzzz", "mtu mode", ""},
		{"a", "", ""},
	} {
		if got := DidYouMean(tt.word, strings.Fields(tt.candidates)); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.word, got, tt.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"maxPods": "x", "a": [{"b": null}]}`))
	f.Add([]byte(`{"registerWithTaints": [{"kee": 1}, 3], "syncFrequency": []}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c kubeletv1.KubeletConfiguration
		for _, p := range DecodeJSON(b, &c) {
			if p.Msg == "" {
				t.Errorf("%+v says nothing", p)
			}
		}
	})
}

func TestFlatten(t *testing.T) {
	got := map[string]string{}
	Flatten(got, "", map[string]any{"a": map[string]any{"b": []any{"x", map[string]any{"c": 1}, nil}}, "d": map[string]any{}, "e": false})
	want := map[string]string{"a.b[0]": "x", "a.b[1].c": "1", "e": "false"}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestChanges(t *testing.T) {
	got := Changes(map[string]string{"a": "1", "b": "2", "c": "3"}, map[string]string{"b": "2", "c": "4", "d": "5"})
	want := []Change{{"a", "1", ""}, {"c", "3", "4"}, {"d", "", "5"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
