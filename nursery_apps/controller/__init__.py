"""The controller: allocation decisions for the classic API and a watch over the whole cluster."""
