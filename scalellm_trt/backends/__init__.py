"""Engines behind one small interface: `base` has the protocol and the factory, one file per backend."""
