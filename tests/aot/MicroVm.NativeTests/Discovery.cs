using System.Reflection;
using Xunit;
using Xunit.Sdk;

namespace MicroVm.NativeTests;

/// <summary>
/// Finds xunit's tests in assemblies that are part of this program. xunit's own framework compiles its tests' data by expressions, which a
/// native program cannot; what our unit tests use of it is facts, theories, and an object for each case.
/// </summary>
internal static class Discovery
{
    /// <summary>The tests of an assembly.</summary>
    internal static IEnumerable<TestCase> Cases(Assembly assembly) =>
        from type in assembly.GetExportedTypes()
        where !type.IsAbstract || type.IsSealed
        from method in type.GetMethods()
        let fact = method.GetCustomAttributes<FactAttribute>().FirstOrDefault()
        where fact is not null
        from arguments in Arguments(method)
        select new TestCase(method, arguments, fact.Skip);

    private static IEnumerable<object?[]> Arguments(MethodInfo method) =>
        method.GetParameters().Length == 0 ? [[]] : method.GetCustomAttributes<DataAttribute>().SelectMany(d => d.GetData(method));
}
