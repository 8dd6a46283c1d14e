"""Who is told when sessions end."""
