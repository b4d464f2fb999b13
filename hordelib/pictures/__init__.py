"""Algorithms on pixels: annotators, faces, matting and QR codes."""
