"""Runs over what is larger than one picture: folders, rasters and videos, with a journal to continue from.

They sit on top of `Segmenter`; nothing below the command line knows them.
"""
