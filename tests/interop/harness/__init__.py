"""What the interop tests stand on: brokers and foreign clients as processes, one small protocol between."""
