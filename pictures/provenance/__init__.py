"""What a picture file says of its own origin: signatures, metadata, generators' text, watermarks.

Nothing here decides how a picture looks or how it is scored. Readers of bytes run in the process
of a decoder (`pictures.process`); a watermark is looked for in pixels that are decoded already.
"""
