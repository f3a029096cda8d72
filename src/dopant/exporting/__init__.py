"""Models as ONNX files, for runtimes that know nothing of us; needs the extra `onnx`."""
