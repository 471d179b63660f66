using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Sandbox;

namespace MicroVm.Shim.Streams;

/// <summary>
/// A program that takes a process's output (<c>binary://</c>), by containerd's rule: descriptors 3 and 4 are output and error to read, 5
/// is closed by the program when it is ready; it ends when both streams have.
/// </summary>
internal sealed unsafe class LogDriver : IDisposable
{
    private static readonly TimeSpan StartTimeout = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan EndTimeout = TimeSpan.FromSeconds(10);
    private readonly SpawnedProcess _process;

    private LogDriver(SpawnedProcess process, SafeFd output, SafeFd error) => (_process, Output, Error) = (process, output, error);

    /// <summary>Takes standard output.</summary>
    internal SafeFd Output { get; }

    /// <summary>Takes standard error.</summary>
    internal SafeFd Error { get; }

    /// <summary>Starts the program and waits until it is ready.</summary>
    /// <exception cref="SandboxException">It cannot be started, or is not ready in time.</exception>
    /// <exception cref="LinuxException">No descriptor is free.</exception>
    internal static LogDriver Start(string path, IReadOnlyList<string> arguments, ProcessName name)
    {
        using SafeFd nothing = SafeFd.From(Libc.open("/dev/null", Libc.O_RDWR | Libc.O_CLOEXEC, 0), "open", "/dev/null");
        (SafeFd outputRead, SafeFd output) = Pipe.Create();
        (SafeFd errorRead, SafeFd error) = Pipe.Create();
        (SafeFd ready, SafeFd readyWrite) = Pipe.Create();
        using SafeFd itsOutput = outputRead, itsError = errorRead, ourReady = ready, itsReady = readyWrite;
        SpawnedProcess? process = null;
        try
        {
            Spawn spawn = new()
            {
                File = path,
                Arguments = [path, .. arguments],
                Environment = [$"CONTAINER_ID={name.Container}", $"CONTAINER_NAMESPACE={name.Namespace}"],
                NewSession = true,
            };
            spawn.Add(nothing);
            spawn.Add(nothing);
            spawn.Add(nothing);
            spawn.Add(itsOutput);
            spawn.Add(itsError);
            spawn.Add(itsReady);
            process = spawn.Start();
            itsReady.Dispose();
            WaitUntilReady(ourReady, path);
            foreach (SafeFd end in (SafeFd[])[output, error])
            {
                _ = Libc.fcntl(end.Value, Libc.F_SETFL, Libc.O_NONBLOCK);
            }

            return new LogDriver(process, output, error);
        }
        catch
        {
            output.Dispose();
            error.Dispose();
            _ = process?.Kill();
            process?.Dispose();
            throw;
        }
    }

    /// <summary>Ends its streams, and waits until it has written what it has read.</summary>
    public void Dispose()
    {
        Output.Dispose();
        Error.Dispose();
        if (_process.Wait(EndTimeout) is null)
        {
            _process.Signal(Libc.SIGTERM);
            _ = _process.Wait(TimeSpan.FromSeconds(1)) ?? _process.Kill();
        }

        _process.Dispose();
    }

    private static void WaitUntilReady(SafeFd ready, string path)
    {
        Libc.pollfd pfd = new() { fd = ready.Value, events = Libc.POLLIN };
        int result;
        do
        {
            result = Libc.poll(&pfd, 1, (int)StartTimeout.TotalMilliseconds);
        }
        while (Check.Retry(result));
        if (result == 0)
        {
            throw new SandboxException($"log driver {path} was not ready within {StartTimeout.TotalSeconds} s: it must close descriptor 5");
        }
    }
}
