"""Inference: from clips to tracks, video files in and out, and pictures of tracks."""
