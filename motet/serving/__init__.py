"""HTTP servers: a checkpoint behind OpenAI's routes, rewards behind HTTP. Needs the extra `motet[serve]`."""
