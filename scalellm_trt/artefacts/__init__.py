"""What each build stage leaves behind: typed values, their manifests and digests, the stage cache, the publish.

`types` holds the values, `digest` hashes files and values, `manifest` reads and writes `manifest.json`,
`stage_cache` finds or makes a stage's directory under its key, `publish` switches what tritonserver sees.
"""
