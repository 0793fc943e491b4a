package conformance

import "regexp"

// obstacles are specs that cannot pass here, and why. It is data: a row names
// the specs by a pattern of their texts. The first that matches counts.
var obstacles = []struct {
	reason string
	specs  *regexp.Regexp
}{
	{
		"needs the image agnhost:2.55, an older program that no module here builds",
		regexp.MustCompile(`^\[sig-apps\] (StatefulSet |Deployment should run the lifecycle of a Deployment|Deployment RecreateDeployment |` +
			`Daemon set \[Serial\] should update pod when spec was updated)|^\[sig-node\] Pods should run through the lifecycle of Pods and PodStatus`),
	},
	{
		"needs the image nginx, which is another project's",
		regexp.MustCompile(`^\[sig-network\] (EndpointsController should create Endpoints for Pods|EndpointSlice should create Endpoints and EndpointSlices for Pods)|` +
			`^\[sig-apps\] ReplicationController should test the lifecycle`),
	},
	{
		"needs the image sample-apiserver, which is another project's",
		regexp.MustCompile(`^\[sig-api-machinery\] Aggregator `),
	},
	{
		"needs host ports by address translation: docker's are a proxy's, for it makes no rules, and kube-proxy drops what goes from a node's address to 127.0.0.1",
		regexp.MustCompile(`^\[sig-network\] HostPort `),
	},
	{
		"needs volumes from images, which docker and cri-dockerd do not have",
		regexp.MustCompile(`^\[sig-node\] ImageVolume `),
	},
}

// obstacle returns why a spec cannot pass, or "".
func obstacle(s Spec) string {
	for _, o := range obstacles {
		if o.specs.MatchString(s.Name) {
			return o.reason
		}
	}
	return ""
}
