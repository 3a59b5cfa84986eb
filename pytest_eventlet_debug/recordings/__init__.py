"""What was recorded, read and laid together. Neither pytest nor eventlet is needed for it."""
