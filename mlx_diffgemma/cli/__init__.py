"""What the programs share: options, streams, requests, files."""
