package builder

// IgnitionConfig lets tests see what a node is told without building an image.
var IgnitionConfig = ignitionConfig
