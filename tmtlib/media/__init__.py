"""From clips to feature files: sound, faces and words of a folder of clips. Needs the packages of `[features]`."""
