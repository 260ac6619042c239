"""The wire format that server, client and SDK share: headers, paths, forms, event streams."""
