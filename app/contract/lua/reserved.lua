-- Returns the bytes that are reserved for all owners.
lapse()
return reserved('')
