-- Returns the bytes reserved for all owners.
lapse()
return reserved('')
