"""Plain functions: a task file names them, nothing needs to be registered."""


def Hello(task_id, name="world"):
    """The handler of tasks/hello.yml; what it returns is the job's response."""
    return {"message": f"Hello, {name}!"}


def OnSuccess(task_id, response):
    """Called once the result is stored."""
    print(f"hello.{task_id}: {response['message']}")
