"""Near duplicates: perceptual hashes of pictures, MinHash of captions, and exact search in both."""
