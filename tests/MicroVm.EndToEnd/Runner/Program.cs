using System.Diagnostics;
using System.Reflection;
using Xunit.Abstractions;
using Xunit.Sdk;

namespace MicroVm.EndToEnd.Runner;

/// <summary>
/// Runs the suite within this process: <c>dotnet MicroVm.EndToEnd.dll RESULTS.trx [NAME|NAME... [CLAIMS]]</c> runs the tests whose full name
/// holds one of the names; of several that are given one folder CLAIMS each test class is run by one. `dotnet test` does the same by two
/// processes that talk, of which an emulated processor compiles more than of the tests.
/// </summary>
internal static class Program
{
    private const int Workers = 2;

    private static int Main(string[] args)
    {
        if (args.Length is < 1 or > 3)
        {
            Console.Error.WriteLine("usage: MicroVm.EndToEnd RESULTS.trx [NAME|NAME... [CLAIMS]]");
            return 2;
        }

        string[] names = args.Length > 1 ? args[1].Split('|', StringSplitOptions.RemoveEmptyEntries) : [];
        Stopwatch watch = Stopwatch.StartNew();
        Assembly assembly = typeof(Program).Assembly;
        using TestFramework framework = new XunitTestFramework(new NullMessageSink());
        using ITestFrameworkDiscoverer discoverer = framework.GetDiscoverer(Reflector.Wrap(assembly));
        using Discovery discovery = new();
        discoverer.Find(includeSourceInformation: false, discovery, new Options());
        List<IXunitTestCase> cases = [.. discovery.Wait().Cast<IXunitTestCase>()
            .Where(c => names.Length == 0 || names.Any(n => $"{ClassName(c)}.{c.TestMethod.Method.Name}".Contains(n, StringComparison.Ordinal)))];
        if (cases.Count == 0)
        {
            Console.Error.WriteLine($"no test's name holds {args[1]}");
            return 2;
        }

        // Each run goes there and back.
        Environment.CurrentDirectory = AppContext.BaseDirectory;
        Execution execution = new(Console.Out, watch);
        ClassQueue queue = new(cases.GroupBy(ClassName), args.Length > 2 ? args[2] : null);
        Thread[] workers = [.. Enumerable.Range(0, Workers).Select(_ => new Thread(() => Work(assembly, queue, execution)))];
        Array.ForEach(workers, w => w.Start());
        Array.ForEach(workers, w => w.Join());
        TrxFile.Write(args[0], execution.Outcomes);
        int failed = execution.Outcomes.Count(o => o.Kind == OutcomeKind.Failed);
        int skipped = execution.Outcomes.Count(o => o.Kind == OutcomeKind.NotExecuted);
        Console.WriteLine($"{execution.Outcomes.Count - failed - skipped} passed, {failed} failed, {skipped} skipped");
        return failed == 0 ? 0 : 1;
    }

    private static void Work(Assembly assembly, ClassQueue queue, Execution execution)
    {
        Options options = new();
        options.SetValue("xunit.execution.DisableParallelization", true);
        while (queue.Next() is { } next)
        {
            Stopwatch watch = Stopwatch.StartNew();
            using XunitTestAssemblyRunner runner = new(new TestAssembly(Reflector.Wrap(assembly)), next, new NullMessageSink(), execution, options);
            runner.RunAsync().GetAwaiter().GetResult();
            execution.ClassEnded(next.Key, watch.Elapsed);
        }
    }

    private static string ClassName(ITestCase test) => test.TestMethod.TestClass.Class.Name;
}
