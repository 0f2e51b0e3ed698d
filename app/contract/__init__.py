"""What the API and its workers share; imports no other package of `app`."""
