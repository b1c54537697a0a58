"""What is released: images by digest, and the files that say which bytes an environment runs."""
