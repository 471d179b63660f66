using MicroVm.Agent.Rootfs;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;

namespace MicroVm.Agent.Containers;

/// <summary>Finds a process's executable in the container's root, with the error texts that runc has (Go's exec.LookPath).</summary>
public static unsafe class ExecutableLookup
{
    /// <summary>The path to exec.</summary>
    /// <param name="root">The container's root.</param>
    /// <param name="process">The process, whose PATH is searched when its first argument has no slash.</param>
    /// <exception cref="SetupException">There is no such executable.</exception>
    public static string Find(RootDirectory root, Process process)
    {
        ArgumentNullException.ThrowIfNull(root);
        ArgumentNullException.ThrowIfNull(process);
        if (process.Args.Count == 0 || process.Args[0].Length == 0)
        {
            throw new SetupException("exec: \"\": executable file not found in $PATH");
        }

        string name = process.Args[0];
        if (name.Contains('/', StringComparison.Ordinal))
        {
            // A relative path is relative to the working directory, where the child execs.
            string at = name[0] == '/' ? name : $"{process.Cwd.TrimEnd('/')}/{name}";
            Errno why = Probe(root, at);
            return why switch
            {
                Errno.OK => name,
                Errno.EACCES or Errno.EISDIR => throw new SetupException($"exec: \"{name}\": permission denied"),
                _ => throw new SetupException($"exec: \"{name}\": stat {name}: {Child.ChildReport.Text(why)}"),
            };
        }

        Errno trouble = Errno.OK;
        string path = process.Env.LastOrDefault(e => e.StartsWith("PATH=", StringComparison.Ordinal))?[5..] ?? "";
        foreach (string directory in path.Split(':'))
        {
            // As Go has it: an empty entry is the working directory, and an empty PATH has no entries.
            string candidate = $"{(directory.Length > 0 ? directory.TrimEnd('/') : ".")}/{name}";
            if (path.Length > 0)
            {
                bool isAbsolute = candidate[0] == '/';
                Errno why = Probe(root, isAbsolute ? candidate : $"{process.Cwd.TrimEnd('/')}/{candidate}");
                if (why == Errno.OK)
                {
                    // What is found beneath the working directory ends the search, and is not run.
                    return isAbsolute ? candidate : throw new SetupException($"exec: \"{name}\": cannot run executable found relative to current directory");
                }

                // What does not say that there is nothing to execute.
                if (trouble == Errno.OK && why is not (Errno.ENOENT or Errno.ENOTDIR or Errno.EACCES or Errno.EISDIR or Errno.ELOOP or Errno.ENAMETOOLONG))
                {
                    trouble = why;
                }
            }
        }

        throw new SetupException(trouble == Errno.OK
            ? $"exec: \"{name}\": executable file not found in $PATH"
            : $"exec: \"{name}\": {Child.ChildReport.Text(trouble)}");
    }

    private static Errno Probe(RootDirectory root, string path)
    {
        try
        {
            using SafeFd file = root.Open(path);
            Libc.statx_t stat;
            byte empty = 0;
            Check.Result(Libc.statx(file.Value, &empty, Libc.AT_EMPTY_PATH, Libc.STATX_TYPE | Libc.STATX_MODE, &stat), "statx", path);
            return (stat.stx_mode & Libc.S_IFMT) == Libc.S_IFDIR ? Errno.EISDIR : (stat.stx_mode & 0x49) == 0 ? Errno.EACCES : Errno.OK;
        }
        catch (LinuxException e)
        {
            return e.Errno;
        }
    }
}
