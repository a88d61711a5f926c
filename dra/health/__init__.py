"""What is wrong with a GPU: facts from several sources, and the verdict over them."""
