manual_cast: object
