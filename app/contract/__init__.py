"""Code shared by the API and the workers; imports no other package of `app`."""
