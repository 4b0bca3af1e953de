"""The model hub: search, headers before downloads, downloads. Nothing goes out unless a person searches or downloads."""
