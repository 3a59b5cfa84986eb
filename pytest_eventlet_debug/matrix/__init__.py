"""One child pytest for each hub, one report over all of them."""
