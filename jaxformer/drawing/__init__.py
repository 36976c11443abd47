"""Drawing on images: boxes, classes in colours, predictions below; imports nothing of the package."""
